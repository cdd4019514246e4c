"""An app that cannot be imported, as one with a missing module or a typing error."""

raise RuntimeError("this app is broken")
