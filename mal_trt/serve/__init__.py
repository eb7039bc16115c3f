"""The server of `mal-trt serve`: masks over HTTP, for programs, for annotation tools and for the page."""
