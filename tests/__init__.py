"""The tests; they mirror the tree. `support` is the test kit, `flows` walks the two paths through the whole."""
