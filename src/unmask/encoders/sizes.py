"""The usual sizes of the Vision Transformer.

Ti and S: Touvron and others, "Training data-efficient image transformers" (DeiT, 2021), table 1.
S to H: MAE section 4 and appendix A.1; B, L and H from Dosovitskiy and others (2021), table 1.
"""

from unmask.encoders.vit import ViT

VIT_TI16 = ViT(patch_size=16, embed_dim=192, depth=12, num_heads=3)
VIT_S16 = ViT(patch_size=16, embed_dim=384, depth=12, num_heads=6)
VIT_B16 = ViT(patch_size=16, embed_dim=768, depth=12, num_heads=12)
VIT_L16 = ViT(patch_size=16, embed_dim=1024, depth=24, num_heads=16)
VIT_H14 = ViT(patch_size=14, embed_dim=1280, depth=32, num_heads=16)
