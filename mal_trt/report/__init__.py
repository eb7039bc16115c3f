"""What runs did, as pages for a browser: figures, and every mask on its crop. One folder, no network, no server."""
