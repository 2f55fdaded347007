"""`labelgen export` writes labels in official formats, and `labelgen import-labels` takes corrected ones back.

The formats of point labels are in `cache_schemas.label_files`, since the trainer writes them too; that of pictures is
here.
"""
