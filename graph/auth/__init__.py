"""Authentication: tokens and cookies become one Viewer.

viewer             Viewer, and how a bearer token or a login becomes one
authenticate       finds the credential of a request or a socket; limits failed logins
cookie             the login cookie
rate_limit         limits per minute and client
token_revocation   closes connections whose token was revoked or has expired
"""
