"""What a model file is: its contract, its hash, its manifest; not what runs it, which is `backends`."""
