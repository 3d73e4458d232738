"""How results are shown: lines and tables, in a terminal and in a notebook.

Input: results that say what is in them. Output: text, rich renderables and HTML. May import
`errors`.
"""
