"""Pictures of curves, surfaces, trainings, angles and curvature."""

from mining.plotting.assessments import draw_intervals as draw_intervals
from mining.plotting.curvature import draw_density as draw_density
from mining.plotting.curvature import draw_eigenvalues as draw_eigenvalues
from mining.plotting.curvature import draw_expansions as draw_expansions
from mining.plotting.curvature import draw_perturbations as draw_perturbations
from mining.plotting.curves import STATIONARY as STATIONARY
from mining.plotting.curves import draw_curves as draw_curves
from mining.plotting.figures import save_figure as save_figure
from mining.plotting.figures import table as table
from mining.plotting.histories import draw_angles as draw_angles
from mining.plotting.histories import draw_history as draw_history
from mining.plotting.histories import draw_mining as draw_mining
from mining.plotting.histories import draw_monitor as draw_monitor
from mining.plotting.layers import add_places as add_places
from mining.plotting.layers import draw_clusters as draw_clusters
from mining.plotting.layers import draw_layer_history as draw_layer_history
from mining.plotting.layers import draw_layer_lines as draw_layer_lines
from mining.plotting.layers import draw_layers as draw_layers
from mining.plotting.layout import explain as explain
from mining.plotting.surfaces import add_scale as add_scale
from mining.plotting.surfaces import draw_contours as draw_contours
from mining.plotting.surfaces import draw_relief as draw_relief
from mining.plotting.surfaces import draw_surface as draw_surface
