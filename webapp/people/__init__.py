"""People at work: several opinions an item, items with a known answer, consensus, reviews, quality, drafts accepted in bulk."""
