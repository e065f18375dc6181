"""HTTP plumbing that every HTTP role shares: error bodies, request ids, bearer keys, CORS, the docs page.

It knows Litestar and the closed list of error codes; it knows no route, no store and no role.
"""
