"""ModelScope's CSANMT translator, from its published folder, without TensorFlow.

``config`` reads the folder's description, ``tensor_bundle`` its TensorFlow checkpoint; ``tokenizer`` turns text into
numbers and back, ``network`` is the model in PyTorch, and ``search`` finds its best translation.
"""
