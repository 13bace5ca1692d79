"""Providers, models, deployments, prices and routes: what the gateway can reach and at what price."""
