"""Files of point labels in official formats, a module a format; `labelgen` and `trainer` both write with them.

`formats` has the table of formats, `point_format` their interface, and `<format>.json` the ids of the format's classes.
"""
