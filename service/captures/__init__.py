"""Pictures that are worth labelling: which are kept, where, and what people say of them."""
