"""`regard convert`: a checkpoint of the authors as a folder that timm loads."""
