"""The spec files that this service has ready."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import PlainTextResponse

from service import recipes
from service.api.deps import SettingsDep
from service.api.presentation import ROOT
from service.api.problems import Problem, responses
from service.api.schemas import PublishedRow, Recipes, RecipeView

router = APIRouter(tags=["recipes"])


@router.get("/recipes", operation_id="list_recipes", responses=responses())
def list_recipes(settings: SettingsDep) -> Recipes:
    """List spec files to start from: published runs with their numbers and citations, and examples."""
    return Recipes(items=[_view(recipe) for recipe in recipes.every(settings)])


@router.get(
    "/recipes/{name}",
    operation_id="get_recipe",
    response_class=PlainTextResponse,
    responses={
        200: {"content": {"application/yaml": {"schema": {"type": "string"}}}, "description": "The file, as it is"},
        **responses("not-found"),
    },
)
def get_recipe(
    name: Annotated[str, Path(max_length=100, description="Name of a recipe")], settings: SettingsDep
) -> PlainTextResponse:
    """The text of one of them: YAML to change and to submit."""
    recipe = recipes.find(settings, name)
    if recipe is None:
        raise Problem("not-found", f"there is no recipe {name[:100]!r}; GET {ROOT}/recipes lists them all")
    return PlainTextResponse(recipes.text_of(recipe.path), media_type="application/yaml")


def _view(recipe: recipes.Recipe) -> RecipeView:
    jobs = ", ".join(f"{job}: {kind}" for job, kind in recipe.kinds.items() if job)
    jobs += f", which become {recipe.becomes:,} jobs" if recipe.becomes > len(recipe.kinds) else ""
    return RecipeView(
        name=recipe.name,
        what=f"experiment of {jobs}" if recipe.is_experiment else recipe.kinds[""],
        description=recipe.description,
        published=[
            PublishedRow(job=job, source=published.source, scores=published.scores)
            for job, published in recipe.published.items()
        ],
        fault=recipe.fault,
        file=f"{ROOT}/recipes/{recipe.name}",
    )
