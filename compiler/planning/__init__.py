"""Where everything lives and what it costs: lifetimes, offsets, strides, costs."""
