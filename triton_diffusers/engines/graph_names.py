"""Names of partial graphs, importable without torch."""

UNET_SHALLOW = "unet_shallow"
VAE_ENCODER = "vae_encoder"
VAE_DECODER = "vae_decoder"
