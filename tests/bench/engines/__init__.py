"""Engines that could keep a box's history, each as small as it can be, in a process of its own."""
