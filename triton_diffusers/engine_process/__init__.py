"""The engine as a process of its own, shared by the models of one server; see ``docs/architecture.md``.

``client`` and ``supervisor`` run beside it, in processes without PyTorch; ``server`` is the process itself.
"""
