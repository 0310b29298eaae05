"""How the dashboard looks, in light and in dark: it follows the reader's system."""

GRAPHICS = {"blue": "#0072B2", "vermillion": "#D55E00", "green": "#009E73", "purple": "#CC79A7"}
"""Those of Okabe and Ito's colours that stand out from both backgrounds, by a contrast of 3 or more."""
LIGHT = {
    "primaryColor": "#0072B2",
    "backgroundColor": "#FFFFFF",
    "secondaryBackgroundColor": "#F3F5F8",
    "textColor": "#11151F",
    "linkColor": "#0072B2",
}
DARK = {
    "primaryColor": "#56B4E9",
    "backgroundColor": "#0E1117",
    "secondaryBackgroundColor": "#1B1F28",
    "textColor": "#FAFAFA",
    "linkColor": "#56B4E9",
}
THEME: dict[str, object] = {
    "theme.font": "sans-serif",
    "theme.chartCategoricalColors": list(GRAPHICS.values()),
    **{f"theme.light.{name}": colour for name, colour in LIGHT.items()},
    **{f"theme.dark.{name}": colour for name, colour in DARK.items()},
}
"""Options of Streamlit."""
STYLE = """<style>
button[data-testid=stBaseButton-primary], [data-testid=stMultiSelectTagsContainer] [data-tag] {
    color: light-dark(#FFFFFF, #0E1117);
}
</style>"""
"""What no option says: Streamlit writes white on the primary colour, which in dark is too bright for that."""
