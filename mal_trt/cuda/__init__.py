"""The few things of CUDA that the runtime uses. Importing this touches no GPU and no CUDA package."""
