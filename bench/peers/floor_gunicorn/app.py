"""Reads the body and answers a constant: what gunicorn itself takes."""

ANSWER = b'{"predictions":["Adelie"]}'
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(ANSWER)))]


def app(environ, start_response):
    """Answer the same to everything."""
    environ["wsgi.input"].read()
    start_response("200 OK", HEADERS)
    return [ANSWER]
