"""localstripe, an independent implementation of Stripe's protocol, for one test: on 127.0.0.1 only, nothing kept.

Usage: other_provider.py PORT
"""
import sys

from aiohttp import web
from localstripe import resources, server

# its own program listens on every interface, and writes everything to one file in /tmp after every change
resources.Store.dump_to_disk = lambda self: None
web.run_app(server.app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
