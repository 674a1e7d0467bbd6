"""What a network sees: which pixels a decision rests on, and what units look for.

    from jaxvision.explain.methods import TrainedNetwork, guided_backprop
    from jaxvision.explain.images import gray

    network = TrainedNetwork.of(load_classifier("checkpoints/part2_finetune/TIME"))
    maps = guided_backprop(network, images, classes)  # [B, H, W, C] float32
    gray(maps)                                        # [B, H, W, 3] uint8

`methods` has every method in one table, `images` draws their maps, `weights` shows
single units, `sanity` tests explanations. `report`, `saliency`, `hidden_units` and
`receptive_field` write run folders, with the settings of `config`.
"""
