"""`regard convert`: turn a checkpoint of the authors into a folder that timm loads."""
