"""The API description: OpenAPI schema, its response models and examples, and the documentation page."""
