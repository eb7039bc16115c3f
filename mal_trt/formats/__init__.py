"""What a picture, a label file and a drawing are: read and written here, whoever asks."""
