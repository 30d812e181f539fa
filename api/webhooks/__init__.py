"""Webhook endpoints as the API shows and checks them."""
