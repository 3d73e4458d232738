"""How results show themselves: lines and tables, drawn in a terminal and in a notebook.

In come results that say what is in them; out go text, rich renderables and HTML. It may import
`errors`.
"""
