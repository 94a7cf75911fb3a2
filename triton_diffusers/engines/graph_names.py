"""What graphs are called that are not a whole network, known without the seconds that it takes to import them."""

UNET_SHALLOW = "unet_shallow"
VAE_ENCODER = "vae_encoder"
VAE_DECODER = "vae_decoder"
