"""The commands that cover `/api/v1`, made from its OpenAPI document."""
