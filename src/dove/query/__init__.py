"""Q-DOVE, a tokenizer that takes queries: settings, words, generator and the tokenizer itself."""
