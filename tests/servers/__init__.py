"""Real servers of the tests' own: databases that may be killed, and a proxy that makes trouble on the way to them."""
