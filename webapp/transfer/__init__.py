"""Items in, labels out: uploads, imports in the background, exports as a stream."""
