"""How clients ask: the project's own routes and the protocols of other servers, each with its messages."""
