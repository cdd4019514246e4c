"""What is known about each platform, and the verbs that follow from it: preflight, bundle, rehearse, verify."""
