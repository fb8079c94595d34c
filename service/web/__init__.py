"""What every route shares: bodies, errors, the description of the routes, and the pages for people."""
