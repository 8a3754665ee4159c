"""What is made of values over time; pure, and without numpy: outputs and the panel load it too."""
