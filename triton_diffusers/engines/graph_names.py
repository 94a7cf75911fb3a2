"""Names of partial graphs and their inputs, importable without torch."""

GUIDANCE = "guidance"  # an input: embeddings of guidance scales
UNET_SHALLOW = "unet_shallow"
VAE_ENCODER = "vae_encoder"
VAE_DECODER = "vae_decoder"
