"""What can be wrong with a folder of pictures, found before a training learns it."""
