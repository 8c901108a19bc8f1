"""What an annotator may say of an item: kinds of labels, their values, and what makes one right."""
