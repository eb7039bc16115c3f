"""Example photos with hand-drawn boxes, installed as package data: what `mal-trt benchmark` labels by default."""
