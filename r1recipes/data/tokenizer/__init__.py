"""What a tokenizer needs before it is trained with: a chat template, and special tokens that end,
pad and begin a text where they should."""
