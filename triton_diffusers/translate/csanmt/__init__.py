"""ModelScope's CSANMT translator, read from its published folder, without TensorFlow.

``config`` reads the folder's description, ``tensor_bundle`` its TensorFlow checkpoint; ``tokenizer`` turns text into
token numbers and back, ``network`` is the model in PyTorch, and ``search`` its beam search.
"""
