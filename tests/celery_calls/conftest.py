from face.fixtures import said, url

__all__ = ["said", "url"]
