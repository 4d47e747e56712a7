"""Who makes a request: tokens and cookies become one Viewer.

viewer             Viewer, and how a bearer token or a login becomes one
authenticate       finds the credential of a request or a socket; limits failed attempts
cookie             the login cookie
rate_limit         at most so many a minute, by client
token_revocation   ends what was opened with a token that was revoked or has expired
"""
