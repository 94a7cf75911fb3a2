"""Model families: everything that depends on the kind of checkpoint, so that the engine loop need not know it.

``registry`` names the families without importing PyTorch. Each one is a package whose ``Family`` has the facts of one
checkpoint and no weights. The nouns that families are made of are in the modules beside this one.
"""
