"""`/models` and `/deployments`: what can be asked for, and where each of it is to be had."""

from typing import Final

from control_plane.accounts.permissions import Permission
from control_plane.api import catalog_change
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.catalog import postgres_models, rules
from control_plane.catalog.postgres_around import around_deployment, around_model
from control_plane.catalog.resources import Deployment, Model, Operation
from control_plane.catalog.specs import MODEL_NAME, DeploymentSpec, ModelChange
from control_plane.errors import InvalidField

TAG: Final = "models"
DEPLOYMENTS: Final = "deployments"


@operation("GET", "/models", tag=TAG, access=Permission.CATALOG_READ)
async def list_models(call: Call, query: PageQuery) -> Page[Model]:
    """Every model."""
    return await page_of(
        call,
        query,
        Page[Model],
        lambda position, limit: postgres_models.list_models(call.db, after=position, limit=limit),
    )


@operation("GET", "/models/{model}", tag=TAG, access=Permission.CATALOG_READ)
async def get_model(call: Call) -> Model:
    """One model."""
    return found(await postgres_models.find_model(call.db, call.param("model")))


@operation("PUT", "/models/{model}", tag=TAG, access=Permission.CATALOG_WRITE, status=202, needs_revision=True)
async def put_model(call: Call, body: ModelChange) -> Operation:
    """Create or replace a model."""
    name = call.param("model")
    await catalog_change.begin(call)
    before = await postgres_models.find_model(call.db, name)
    catalog_change.match(call, before)
    is_name = MODEL_NAME.fullmatch(name)
    catalog_change.pass_if_valid(
        [*rules.model_faults(name, body, await around_model(call.db, name, body))]
        if is_name
        else [InvalidField(rules.MODEL, "letters, digits and . _ / : @ -, at most 200")]
    )
    after = await postgres_models.put_model(call.db, name, body)
    return await catalog_change.finish(call, "model.put", name, before=before, after=after)


@operation("DELETE", "/models/{model}", tag=TAG, access=Permission.CATALOG_WRITE, status=202, needs_revision=True)
async def delete_model(call: Call) -> Operation:
    """Remove a model that no deployment and no route names."""
    await catalog_change.begin(call)
    before = found(await postgres_models.find_model(call.db, call.param("model")))
    call.match(before.revision)
    catalog_change.pass_if_unused(await postgres_models.uses_of_model(call.db, before.name))
    await postgres_models.delete_models(call.db, [before.name])
    return await catalog_change.finish(call, "model.delete", before.name, before=before)


@operation("GET", "/deployments", tag=DEPLOYMENTS, access=Permission.CATALOG_READ)
async def list_deployments(call: Call, query: PageQuery) -> Page[Deployment]:
    """Every deployment."""
    return await page_of(
        call,
        query,
        Page[Deployment],
        lambda position, limit: postgres_models.list_deployments(call.db, after=position, limit=limit),
    )


@operation("GET", "/deployments/{model}/{provider}", tag=DEPLOYMENTS, access=Permission.CATALOG_READ)
async def get_deployment(call: Call) -> Deployment:
    """One deployment."""
    return found(await postgres_models.find_deployment(call.db, call.param("model"), call.param("provider")))


@operation(
    "PUT",
    "/deployments/{model}/{provider}",
    tag=DEPLOYMENTS,
    access=Permission.CATALOG_WRITE,
    status=202,
    needs_revision=True,
)
async def put_deployment(call: Call, body: DeploymentSpec) -> Operation:
    """Create or replace a deployment: a model at a provider."""
    model, provider = call.param("model"), call.param("provider")
    await catalog_change.begin(call)
    before = await postgres_models.find_deployment(call.db, model, provider)
    catalog_change.match(call, before)
    catalog_change.pass_if_valid(
        [*rules.deployment_faults(model, provider, await around_deployment(call.db, model, provider))]
    )
    after = await postgres_models.put_deployment(call.db, model, provider, body)
    return await catalog_change.finish(call, "deployment.put", f"{model} at {provider}", before=before, after=after)


@operation(
    "DELETE",
    "/deployments/{model}/{provider}",
    tag=DEPLOYMENTS,
    access=Permission.CATALOG_WRITE,
    status=202,
    needs_revision=True,
)
async def delete_deployment(call: Call) -> Operation:
    """Remove a deployment that no published route of its model sends to."""
    model, provider = call.param("model"), call.param("provider")
    await catalog_change.begin(call)
    before = found(await postgres_models.find_deployment(call.db, model, provider))
    call.match(before.revision)
    catalog_change.pass_if_unused(await postgres_models.uses_of_deployment(call.db, model, provider))
    await postgres_models.delete_deployments(call.db, [(model, provider)])
    return await catalog_change.finish(call, "deployment.delete", f"{model} at {provider}", before=before)
