"""OpenVINO compiler: ``lowering`` and ``extensions`` export, ``passes`` rewrite, ``compiler`` runs."""
