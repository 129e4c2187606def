"""Keep Thebe's scripts off the pages: it needs a server elsewhere, and Jupyter Book loads it even when it is off."""


def setup(app):
    app.connect("builder-inited", remove_listeners)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def remove_listeners(app):
    for event in ("env-before-read-docs", "doctree-resolved"):
        listeners = app.events.listeners.get(event, [])
        listeners[:] = [listener for listener in listeners if listener.handler.__module__ != "sphinx_thebe"]
